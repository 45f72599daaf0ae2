"""`python -m fimaq_deploy`."""

from fimaq_deploy.cli import main

main()
