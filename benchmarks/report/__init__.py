"""What a recorded run says: tables, web pages, comparisons."""
