"""`verify`: tests on a scratch database whether each rollback undoes its migration."""
