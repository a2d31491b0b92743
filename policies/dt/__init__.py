"""The Decision Transformer (arXiv 2106.01345): actions from returns, states and actions."""
