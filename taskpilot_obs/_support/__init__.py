"""Small tools that know nothing of agents."""
