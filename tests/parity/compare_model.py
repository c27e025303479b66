"""Compares `crrl model check` with transformers on a real model folder.

usage: compare_model.py CRRL_BINARY MODEL_DIR [TOKENS]

Prints the largest difference of the last position's logits in f32; exits 1 above 2e-3, which for
logits around 20 is the rounding of f32 through a few dozen layers.
"""

import json
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

binary, folder = sys.argv[1:3]
count = int(sys.argv[3]) if len(sys.argv) > 3 else 200
text = open(__file__).read() * 20
ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"][:count]
with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    json.dump(ids, file)
    file.flush()
    out = subprocess.run([binary, "model", "check", folder, "--json", "--prompt-ids", file.name],
                         check=True, capture_output=True, text=True, timeout=600).stdout
report = json.loads(out)
ours = torch.tensor(report.pop("logits"))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
with torch.no_grad():
    theirs = model(torch.tensor([ids])).logits[0, -1]
gap = (ours - theirs).abs().max().item()
same = int(ours.argmax()) == int(theirs.argmax())
print(json.dumps(report | dict(tokens=len(ids), max_difference=gap, same_argmax=same,
                               largest_logit=theirs.abs().max().item())))
sys.exit(0 if gap < 2e-3 and same else 1)
