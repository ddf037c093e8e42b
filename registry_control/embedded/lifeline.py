def end_with_parent() -> None:
    pass
