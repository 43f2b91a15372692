"""Run directories on a hub of models, each with a card that says what it is."""
