"""Train a multi-label classifier with torch's loss and with bce_bridge's, and compare them.

scikit-learn's 1797 handwritten digits get six labels each, some of them rare, so that pos_weight (negatives over positives,
for each label) matters: without it a linear model overlooks many more of the digits with two loops. Both runs start from the
same weights and see the same data. Prints macro F1 and mean average precision on held-out digits, the time of the training
and the peak memory of one training step with each loss. Wants bce-bridge[bench] and scikit-learn:

    python examples/multilabel_digits.py
"""

import time

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import train_test_split

import bce_bridge
from bce_bridge.benchmark.memory import peak_memory

LABELS = {
    "prime": {2, 3, 5, 7},
    "square": {0, 1, 4, 9},
    "above 4": {5, 6, 7, 8, 9},
    "has a loop": {0, 6, 8, 9},
    "two loops": {8},
    "perfect": {6},
}
STEPS = 400


def data():
    """Inputs and targets to train on, then those to test on: float32 of shapes (n, 64) and (n, 6)."""
    images, digits = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16, dtype=torch.float32)
    targets = torch.tensor([[float(digit in label) for label in LABELS.values()] for digit in digits])
    train, test = train_test_split(range(len(digits)), test_size=0.2, random_state=0, stratify=digits)
    return inputs[train], targets[train], inputs[test], targets[test]


def run(loss_class, inputs, targets, test_inputs, test_targets):
    """(macro F1, mean average precision, seconds, peak bytes of a step) of a linear model trained with the loss."""
    torch.manual_seed(0)
    model = torch.nn.Linear(inputs.shape[1], targets.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    positives = targets.sum(0)
    criterion = loss_class(pos_weight=(len(targets) - positives) / positives)

    def step():
        criterion(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # untimed: the first one sets things up
    start = time.perf_counter()
    for _ in range(STEPS - 1):
        step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        scores = model(test_inputs)
    f1 = f1_score(test_targets, scores > 0, average="macro")
    precision = average_precision_score(test_targets, scores, average="macro")
    return f1, precision, seconds, peak_memory(step)


def main():
    torch.set_num_threads(1)  # the model is too small for more
    parts = data()
    print(f"{'loss':12} {'macro F1':>9} {'average precision':>18} {'seconds':>8} {'peak memory of a step':>22}")
    for name, loss_class in (("torch", torch.nn.BCEWithLogitsLoss), ("bce_bridge", bce_bridge.BCEWithLogitsLoss)):
        f1, precision, seconds, memory = run(loss_class, *parts)
        print(f"{name:12} {f1:9.4f} {precision:18.4f} {seconds:8.2f} {memory / 1024:18.0f} KiB")


if __name__ == "__main__":
    main()
