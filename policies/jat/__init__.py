"""JAT: one embedding an observation and an action, regression heads, observation prediction."""
