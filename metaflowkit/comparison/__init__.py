"""Several pipelines on the same test episodes: their runs, statistics that hold for few seeds, and one page of results."""
