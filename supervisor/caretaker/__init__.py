"""The caretaker: a child without user code that settles, recalls and tidies up."""
