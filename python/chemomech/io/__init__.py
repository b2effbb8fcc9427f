"""Files: what comes in is checked here, what goes out is written whole or not at all."""
