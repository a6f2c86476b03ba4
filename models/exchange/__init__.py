"""Networks in and out of other frameworks' files. Importing it loads none of them."""
