"""Images made to do harm, and what must become of them."""
