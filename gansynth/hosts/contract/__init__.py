"""What a host must do, and the session that trains one."""
