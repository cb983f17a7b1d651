"""`doctor`: checks privileges and server settings; changes nothing."""
