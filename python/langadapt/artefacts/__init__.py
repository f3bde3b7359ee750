"""What a stage leaves behind: folders that are whole or absent, and stamps that say what they were made from."""
