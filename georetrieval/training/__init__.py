"""How a branch is trained."""
