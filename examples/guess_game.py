"""Guess my number: a game in the terminal that can be saved between any two moves, and played on another day.

    python -m paddock.examples.guess_game
    python -m paddock.examples.guess_game --save game.json      go on where this file was left

An empty line saves the game and loads it again, as if another program did. The end of the input (Ctrl-D) saves it and leaves.
There is no server here: a state class runs by itself, in whatever program holds it.
"""

import argparse
import asyncio
import os
import secrets
from typing import Any

from pydantic import BaseModel

from paddock import StateMachine, state

LOWEST, HIGHEST = 0, 100


class Game(BaseModel):
    """All that there is to know about a game."""

    answer: int = -1
    guesses: list[int] = []


def pick() -> int:
    """Pick a number."""
    return LOWEST + secrets.randbelow(HIGHEST - LOWEST + 1)


class GuessGame(StateMachine[Game], name="guess-game", start="begin"):
    """Think of a number, hear guesses until one is right."""

    @state
    async def begin(self) -> Any:
        """Think of a number: once, however often the game is saved and loaded."""
        self.data.answer = await self.action("pick", pick)
        self.log("picked")
        return self.ask

    @state
    async def ask(self) -> Any:
        """Wait for a guess. Unless it is right, this state is visited again."""
        guess = await self.wait_event("guess", int)
        self.data.guesses.append(guess)
        self.log("guessed", guess=guess)
        return self.won if guess == self.data.answer else self.ask

    @state
    async def won(self) -> Any:
        """Be found out."""
        self.log("won", guesses=len(self.data.guesses))


def hint(game: Game) -> str:
    """Return what to tell the player."""
    if not game.guesses:
        return f"I think of a number from {LOWEST} to {HIGHEST}. An empty line saves and loads the game."
    last = game.guesses[-1]
    return f"{last} is too {'small' if last < game.answer else 'large'}."


def next_guess() -> int | None:
    """Return a number that the player types; None for an empty line.

    Raises:
        EOFError: the player has left.
    """
    while True:
        text = input("> ").strip()
        if not text:
            return None
        if text.isdecimal() and LOWEST <= int(text) <= HIGHEST:
            return int(text)
        print(f"A number from {LOWEST} to {HIGHEST}, please.")


async def go_on(game: GuessGame) -> None:
    """Let the game go as far as it comes without the player: to its end, or to where it waits for a guess."""
    async for _ in game.run():
        pass


def play(game: GuessGame) -> GuessGame:
    """Play until the end, or until the player leaves; return the game as it stands then."""
    asyncio.run(go_on(game))
    while game.state is not None:
        print(hint(game.data))
        try:
            guess = next_guess()
        except (EOFError, KeyboardInterrupt):
            return game
        if guess is None:
            text = game.to_json()
            game = GuessGame.from_json(text)
            print(f"----- saved ({len(text)} characters) and loaded -----")
            continue
        game.send("guess", guess)
        asyncio.run(go_on(game))
    return game


def load(path: str) -> GuessGame:
    """Return the game in a file, or a new one."""
    if not os.path.exists(path):
        return GuessGame()
    with open(path, encoding="utf-8") as file:
        return GuessGame.from_json(file.read())


def main() -> None:
    """Play a game."""
    parser = argparse.ArgumentParser(prog="guess_game", description="Guess my number.")
    parser.add_argument("--save", default="guess-game.json", help="the file of the saved game (default: %(default)s)")
    options = parser.parse_args()
    game = play(load(options.save))
    if game.state is not None:
        with open(options.save, "w", encoding="utf-8") as file:
            file.write(game.to_json())
        print(f"\nsaved in {options.save}")
        return
    if os.path.exists(options.save):
        os.unlink(options.save)
    print(f"{game.data.answer} it is! You needed {len(game.data.guesses)} guesses: {game.data.guesses}")


if __name__ == "__main__":
    main()
