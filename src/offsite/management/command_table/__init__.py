"""How a command is declared, written and answered, whatever it does."""
