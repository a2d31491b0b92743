"""How an environment of your own becomes tokens, and tokens become actions.

python examples/tokens.py
"""

import numpy as np
from gymnasium import spaces

from gato_gym import PlanOptions, compile_plan

OBSERVATION = spaces.Dict(
    camera=spaces.Box(0, 255, (64, 80, 3), np.uint8),
    task=spaces.Text(30),
    speed=spaces.Box(-2, 2, (7,)),
)
ACTION = spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))])


def main() -> None:
    observation = {
        "camera": np.zeros((64, 80, 3), np.uint8),
        "task": "open the door",
        "speed": np.linspace(-2, 2, 7, dtype=np.float32),
    }
    for layout in ("paper", "lean"):
        plan = compile_plan(OBSERVATION, ACTION, PlanOptions(layout=layout))
        step = plan.encode(observation)
        print(f"{layout}: {plan.num_tokens} tokens beside the text's {len(step.text)}\n{plan}\n")

    ids = plan.encode_action((1, np.float32([0.5, -1.0])))
    print("action", ids.tolist(), "decodes to", plan.decode(ids))


if __name__ == "__main__":
    main()
