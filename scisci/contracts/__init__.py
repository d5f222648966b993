"""What all parts agree on: errors, metrics, run records, the results table. Imports nothing else of scisci."""
