"""`rlhf-gym label`: open the page on which people label."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from rlhf_gym.core.command import Command
from rlhf_gym.core.data import read_records
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.feedback import Question
from rlhf_gym.core.store import FeedbackStore, Progress

if TYPE_CHECKING:
    from rlhf_gym.pipelines.labelling.feed import Feed, Writer
    from rlhf_gym.pipelines.labelling.supervision import Supervision

SHOWN = 10
"""Problems of a file that are printed one by one."""


@dataclass(frozen=True)
class WritingConfig:
    """Answers that a language model writes while raters judge."""

    prompts: str | None = None
    """File or folder with a column `prompt`; without a model, raters write the answers."""
    model: str | None = None
    """Who answers them: a directory or hub name."""
    endpoint: str | None = None
    """Who answers them: an OpenAI-compatible server, such as http://127.0.0.1:8000/v1."""
    endpoint_model: str = "default"
    """The model's name at the endpoint."""
    completions: int = 2
    """Answers shown together, where they are compared."""
    max_tokens: int = 64
    """Longest answer."""
    temperature: float = 1.0
    """Of the sampling."""

    def __post_init__(self) -> None:
        if self.model is not None and self.endpoint is not None:
            raise InvalidArgument("endpoint", self.endpoint, "two writers", "Leave out --model")
        if self.prompts is None and (self.model or self.endpoint):
            raise InvalidArgument("prompts", None, "nothing to answer", "Add --prompts FILE")
        if not 2 <= self.completions <= 9:
            raise InvalidArgument(
                "completions", self.completions, "too few or too many", "Give 2 to 9"
            )


@dataclass(frozen=True)
class ActingConfig:
    """What is shown of tasks of acting."""

    clips: str | None = None
    """Compare clips of random behaviour in this task, such as rlhf_gym/Pizza-v0."""
    clip_pairs: int = 20
    """How many pairs of clips."""
    clip_length: int = 12
    """Steps of a clip."""
    supervise: str | None = None
    """Reward and punish an agent in this task while it acts and learns."""
    frames_per_second: float = 6.0
    """Speed of clips at first; the page can change it."""


@dataclass(frozen=True)
class LabelConfig:
    """Open a page to label on."""

    store: str = "feedback.db"
    """The feedback store; made if it is not there."""
    queries: tuple[str, ...] = ()
    """Files or folders with prompts and completions to judge, put into the store first."""
    question: Question | None = None
    """What is asked about queries that do not say it themselves."""
    overlap: int = 1
    """How many raters shall answer each new query."""
    guidelines: str | None = None
    """A text file that is shown to raters; a few marks of Markdown are understood."""
    rating_range: tuple[float, float] = (0.0, 10.0)
    """Lowest and highest rating."""
    writing: Annotated[WritingConfig, tyro.conf.arg(name="")] = field(default_factory=WritingConfig)
    acting: Annotated[ActingConfig, tyro.conf.arg(name="")] = field(default_factory=ActingConfig)
    host: str = "127.0.0.1"
    """Where the page is served. On any but this machine itself, a token guards it."""
    port: int = 8765
    """At which port; 0 takes a free one."""
    token: str | None = None
    """The secret that guards the page; by default a new one, where one is needed."""

    def __post_init__(self) -> None:
        low, high = self.rating_range
        if not low < high:
            raise InvalidArgument("rating_range", self.rating_range, "no range", "Give 0 10")
        if not 0 <= self.port < 65536:
            raise InvalidArgument("port", self.port, "no port", "Give 0 to 65535")
        if self.overlap < 1:
            raise InvalidArgument("overlap", self.overlap, "nobody would answer", "Give 1 or more")
        if self.token is not None and len(self.token) < 8:
            raise InvalidArgument(
                "token", "...", "it could be guessed", "Give 8 characters or more"
            )


def label(config: LabelConfig) -> None:
    """Fill the store, and serve the page until Ctrl-C.

    Raises:
        InvalidArgument: the extra is missing, or the port is taken.
        InvalidData: a file that cannot be read.
        InvalidStore: another program's file, a damaged one, or one from a newer version.
        StoreUnavailable: the store cannot be opened or written.
    """
    uvicorn = _server_library()
    from rlhf_gym.pipelines.labelling.app import make_app
    from rlhf_gym.pipelines.labelling.desk import Desk, PageSettings
    from rlhf_gym.pipelines.labelling.guard import is_loopback

    console = Console()
    settings = PageSettings(
        _guidelines(config.guidelines),
        *config.rating_range,
        config.acting.frames_per_second,
        config.acting.supervise,
    )
    token = config.token
    if token is None and not is_loopback(config.host):
        token = secrets.token_urlsafe(24)
    listener = _listen(config.host, config.port)
    with FeedbackStore(config.store, timeout=5.0) as store:
        fill(store, config, console)
    supervision = _supervision(config)
    feed = _feed(config)
    desk = Desk(config.store, settings, feed)
    app = make_app(desk, supervision=supervision, token=token)
    port = listener.getsockname()[1]
    for line in (_greeting(config, port, token), _contents(config, desk.view.progress())):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3))
    try:
        # Ctrl-C is how a page ends; the server hands it on when it has closed.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        listener.close()
        if feed is not None:
            feed.close()
        if supervision is not None:
            supervision.close()
        console.print(f"{desk.view.progress().labels} labels in {config.store}")
        desk.close()


def fill(store: FeedbackStore, config: LabelConfig, console: Console) -> None:
    """Put what the flags name into the store; what is there already is not stored again.

    Args:
        store: where to.
        config: the flags.
        console: says what was read and what was not.
    """
    if config.queries or config.writing.prompts or config.acting.clips:
        # Not before it is needed: it imports the tasks.
        from rlhf_gym.pipelines.labelling.queries import add_clips, add_prompts, add_queries
    else:
        return
    for file in config.queries:
        added = add_queries(store, file, question=config.question, overlap=config.overlap)
        console.print(
            f"{file}: {added.queries} queries, {added.gold} of them gold, "
            f"{len(added.problems)} records left out"
        )
        for problem in added.problems[:SHOWN]:
            console.print(f"  {problem}", markup=False)
        if (more := len(added.problems) - SHOWN) > 0:
            console.print(f"  and {more} more: correct these, and start again to see the others")
    writing = config.writing
    if writing.prompts is not None and writing.model is None and writing.endpoint is None:
        add_prompts(store, _prompts(writing.prompts), config.overlap)
    acting = config.acting
    if acting.clips is not None:
        add_clips(
            store, acting.clips, acting.clip_pairs, acting.clip_length, overlap=config.overlap
        )


def _supervision(config: LabelConfig) -> Supervision | None:
    """The agent that is taught live, if there is one."""
    if config.acting.supervise is None:
        return None
    from rlhf_gym.pipelines.labelling.supervision import Supervision

    return Supervision(config.store, config.acting.supervise)


def _feed(config: LabelConfig) -> Feed | None:
    """Who writes while raters judge, if anybody."""
    writing = config.writing
    if writing.prompts is None or not (writing.model or writing.endpoint):
        return None
    from rlhf_gym.pipelines.labelling.feed import Feed
    from rlhf_gym.pipelines.labelling.writers import DirectoryWriter, EndpointWriter

    sampling: dict[str, Any] = {
        "max_tokens": writing.max_tokens,
        "temperature": writing.temperature,
    }
    writer: Writer
    if writing.model is not None:
        writer = DirectoryWriter(writing.model, **sampling)
    else:
        writer = EndpointWriter(str(writing.endpoint), writing.endpoint_model, **sampling)
    return Feed(
        config.store,
        _prompts(writing.prompts),
        writer,
        config.question or "ranking",
        completions=writing.completions,
        overlap=config.overlap,
    )


def _prompts(path: str) -> list[str]:
    return [str(record["prompt"]) for record in read_records(path, required=("prompt",))]


def _guidelines(path: str | None) -> str:
    if path is None:
        return ""
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidData("guidelines", path, str(error), "Give a text file in UTF-8") from error


def _listen(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        InvalidArgument: it is taken, or not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # At once, or another could take the same address until the server listens.
        listener.listen(128)
    except OSError as error:
        raise InvalidArgument(
            "port", f"{host}:{port}", str(error), "Choose another with --port, or --port 0"
        ) from error
    return listener


def _greeting(config: LabelConfig, port: int, token: str | None) -> str:
    from rlhf_gym.pipelines.labelling.guard import is_loopback

    everywhere = config.host in ("0.0.0.0", "::")
    host = socket.gethostname() if everywhere else config.host
    host = f"[{host}]" if ":" in host else host
    secret = "" if token is None else f"?token={token}"
    lines = [f"Label at http://{host}:{port}/{secret}"]
    if config.acting.supervise is not None:
        lines.append(f"Teach at http://{host}:{port}/supervise{secret}")
    if token is not None and not is_loopback(config.host):
        lines.append("Whoever has this address may label. It is not encrypted: use it in a network")
        lines.append("you trust, or leave --host out and go through `ssh -L`.")
    return "\n".join(lines)


def _contents(config: LabelConfig, progress: Progress) -> str:
    there = f"{config.store}: {progress.queries} queries, {progress.answered} of them answered."
    if not progress.queries and config.writing.prompts is None and config.acting.supervise is None:
        there += " Add some with --queries FILE; `rlhf-gym label --help` shows what else there is."
    return f"{there}\nCtrl-C ends; every label that was given is in the store."


def _server_library() -> Any:
    """uvicorn, with Starlette beside it.

    Raises:
        InvalidArgument: they are not installed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise InvalidArgument(
            "label", error.name, "the page needs it", "pip install 'rlhf-gym[label]'"
        ) from error
    return uvicorn


COMMAND = Command(LabelConfig, label)
