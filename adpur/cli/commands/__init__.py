"""Commands that are not Lightning stages, one module each with a `main(argv)`."""
