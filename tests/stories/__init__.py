"""What users and operators live through, told over HTTP against real processes."""
