"""The comparison of the demonstration: few labels alone, against the same labels with many unlabelled rows."""
