"""How providers spell things: their names (`names`) and their errors (`errors`)."""
