dcs up --abort-on-container-exit --exit-code-from tests
states
dcs up --abort-on-container-exit --no-attach server --exit-code-from tests tests server
states
dcs up --exit-code-from good good server
dcs up --abort-on-container-failure bad
states
dcs --profile bad --profile good up --abort-on-container-failure good bad
dcs up nothing
dc --profile '*' down
