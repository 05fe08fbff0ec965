"""What turns a task's input into an engine's, and the engine's output into the task's result."""
