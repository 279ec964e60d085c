"""The revisions; each is as it was when its schema was released, and is never changed."""
