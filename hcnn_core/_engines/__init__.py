"""How convolutions are carried out: a planner chooses, an engine works."""
