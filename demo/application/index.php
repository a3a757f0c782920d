<?php
$served = htmlspecialchars(gethostname());
$address = htmlspecialchars($_SERVER['SERVER_ADDR'] ?? gethostbyname(gethostname()));
$asked = htmlspecialchars($_SERVER['HTTP_HOST'] ?? '');
$proxy = htmlspecialchars($_SERVER['HTTP_X_PROXIED_BY'] ?? 'nobody');
?>
<!doctype html>
<title>SecurityApp</title>
<h1>Hello from SecurityApp</h1>
<p>Served by container <b><?= $served ?></b> (<?= $address ?>) on host <b><?= $asked ?></b>.</p>
<p>Passed on by proxy container <b><?= $proxy ?></b>.</p>
