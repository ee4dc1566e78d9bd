"""The ledger of a life: what it writes while it lives, and what others read in it."""
