"""Commands for people: run them as modules, `./scripts/env python -m scripts.<name>`."""
