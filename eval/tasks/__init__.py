"""One file per task: from all that a model answered to its scores."""
