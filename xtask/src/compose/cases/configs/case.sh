export SETTING='as set' TOKEN=abc123 NAME=somebody
dc up -d
dc exec -T reader cat /from-file /etc/app/text.conf /environment
echo
dc exec -T reader sh -c 'head -c 99 /run/secrets/password /run/secrets/api_token /run/elsewhere/password'
echo
dc exec -T reader stat -c '%n %a %u %g' /from-file /etc/app/text.conf /environment /run/secrets/password /run/secrets/api_token
dc exec -T reader sh -c 'echo x > /from-file'
dc exec -T reader sh -c 'echo x > /run/secrets/password'
look
dc up -d
SETTING='another' dc up -d
dc exec -T reader cat /environment
echo
echo 'colour = red' > app.conf
dc up -d
dc exec -T reader cat /from-file
dc down
unset TOKEN
dc up -d
dc down
