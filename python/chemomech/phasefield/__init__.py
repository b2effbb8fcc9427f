"""Phase-field models of particles."""
