"""What a user would write: the same model, by the recipe of the forum and by its direct port."""
