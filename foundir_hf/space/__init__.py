"""The web page: what `foundir serve` and `space/app.py` show. Needs `pip install 'foundir_hf[space]'`."""
