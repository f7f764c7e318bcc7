"""OmniMind: a self-healing, actor-based distributed runtime on Ray."""
