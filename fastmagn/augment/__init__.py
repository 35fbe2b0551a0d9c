"""Views of a batch: parameters are drawn once (`params`), then applied by one of several engines (`views`)."""
