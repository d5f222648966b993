"""Predictors fitted in closed form, or nearly: what a network must beat. They run and report as networks do."""
