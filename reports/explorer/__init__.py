"""The explorer: one offline page on which a person looks at the images behind the table."""
