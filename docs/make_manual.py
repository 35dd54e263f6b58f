"""Write the manual page anew, after the command line has changed:  python docs/make_manual.py"""

from pathlib import Path

from agent.cli import build_parser
from agent.commands.manpage import manual_page
from agent.commands.tree import command_tree

if __name__ == "__main__":
    page = Path(__file__).parent / "backup-agent.1"
    page.write_text(manual_page(command_tree(build_parser())))
