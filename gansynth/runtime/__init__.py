"""What every package stands on: errors, files, processes, devices, options."""
