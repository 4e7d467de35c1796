"""What people read: figures and one offline HTML report."""
