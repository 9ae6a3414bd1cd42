"""An archive without a run: manifests and files as they would stand there, for whoever shows or exports them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mirror import names
from tests import media


class Shelf:
    """Prompts in a folder, each with what a test says of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def file(
        self, folder: str, path: str, content: bytes, role: str = "origin", owner: str = "", image: int = 1, **more: Any
    ) -> dict[str, Any]:
        """A stored file, and its entry in a manifest."""
        (self.root / folder).mkdir(exist_ok=True)
        (self.root / folder / path).write_bytes(content)
        field = "origin" if role == "origin" else "path"
        return {
            "path": path,
            "role": role,
            "url": f"https://media.example.com/{path}",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "named_by": [{"prompt_id": owner or folder, "task_id": 1, "image_id": image, "field": field}],
            "verified": ["length"],
            **more,
        }

    def put(
        self,
        prompt_id: str,
        files: Sequence[dict[str, Any]] = (),
        *,
        state: str = "complete",
        at: str = "2026-01-29T13:54:20Z",
        task: dict[str, Any] | None = None,
        errors: Sequence[dict[str, Any]] = (),
    ) -> str:
        """Write a prompt's manifest; returns its folder."""
        folder = names.for_prompt(prompt_id)[0]
        (self.root / folder).mkdir(exist_ok=True)
        told = {"taskId": 1, "promptId": prompt_id, "taskType": 3, "state": 2 if state == "failed" else 30}
        manifest = {
            "version": 1,
            "prompt_id": prompt_id,
            "state": state,
            "mirrored_at": at,
            "api": {"url": "https://api.example.com/getTaskInfo", "code": 200, "msg": "SUCCESS"},
            "task": told | (task or {}),
            "files": list(files),
            "errors": list(errors),
        }
        (self.root / folder / "manifest.json").write_bytes(json.dumps(manifest).encode())
        return folder

    def pair(self, prompt_id: str, number: int = 0, **more: Any) -> str:
        """A prompt with a picture and its thumbnail."""
        folder = names.for_prompt(prompt_id)[0]
        files = [
            self.file(folder, f"small-{number}.png", media.png(24, 16, number), "thumbnail", prompt_id),
            self.file(folder, f"large-{number}.png", media.png(48, 32, number), "origin", prompt_id),
        ]
        return self.put(prompt_id, files, **more)


def child(prompt_id: str, state: int = 30, reason: str = "") -> dict[str, Any]:
    """A child in a task's list."""
    return {"taskId": 7, "promptId": prompt_id, "taskType": 3, "state": state, "reason": reason}
