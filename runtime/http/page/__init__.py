"""The page's files; `page_routes` serves them."""
