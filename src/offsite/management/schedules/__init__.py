"""Tasks, and the schedules that start them."""
