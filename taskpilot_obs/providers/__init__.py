"""Provider-specific spellings: names of providers and models (`names`), and errors (`errors`)."""
