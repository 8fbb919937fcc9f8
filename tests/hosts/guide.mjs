// Follows docs/openwebui.md in a browser, from the admin's sign-in to the second chat, and takes the guide's pictures.
// node guide.mjs '{"url", "email", "password", "endpoint", "key", "filter", "chats", "pictures", "playwright"}'
// `chats` are two lists of messages, each with what the answer holds. Prints what stands above the last as {"line"}.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const given = JSON.parse(process.argv[2]);
const { chromium } = createRequire(given.playwright + '/')('playwright-core');
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
const context = await browser.newContext({ viewport: { width: 1100, height: 760 }, baseURL: given.url });
const page = await context.newPage();
page.setDefaultTimeout(90_000);

async function signIn() {
  await page.goto('/auth');
  await page.fill('input[type=email]', given.email);
  await page.fill('input[type=password]', given.password);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#chat-input');
  const news = page.getByText("Okay, Let's Go!"); // to be closed when it comes, at the first sign-in
  await news.click({ timeout: 10_000 }).catch(() => undefined);
}

async function connect() {
  await page.goto('/admin/settings/integrations');
  await page.getByLabel('Add Connection').first().click();
  const dialog = page.getByRole('dialog').filter({ has: page.locator('#api-base-url') }).last();
  await dialog.getByRole('button', { name: 'OpenAPI', exact: true }).click();
  await page.fill('#enter-name', 'Browser');
  await page.fill('#enter-id', 'browser');
  await page.fill('#description', 'Through Holdfast: one session for each chat');
  await page.fill('#api-base-url', 'http://127.0.0.1:8790/mcp'); // as the guide has it
  await page.getByPlaceholder('API Key').fill(given.key);
  await page.waitForTimeout(500);
  await page.screenshot({ path: given.pictures + '/openwebui-connection.png' });
  await page.fill('#api-base-url', given.endpoint);
  await dialog.getByRole('button', { name: 'Save', exact: true }).click();
  await page.getByText('Connections saved successfully').waitFor();
}

async function installFilter() {
  await page.goto('/admin/functions/create');
  await page.locator('.cm-content').click();
  await page.keyboard.press('Control+A');
  await page.keyboard.insertText(readFileSync(given.filter, 'utf8'));
  await page.getByPlaceholder('Function Name').fill('Holdfast');
  await page.getByRole('button', { name: 'Save & Create', exact: true }).click();
  await page.getByRole('button', { name: 'Confirm', exact: true }).click();
  await page.getByText('Function created successfully').waitFor();
}

async function switchOn() {
  await page.goto('/admin/functions');
  await page.getByRole('switch').first().click();
  await page.getByLabel('Function Menu').click();
  await page.getByRole('menu').last().getByRole('switch').click();
  await page.getByText('Filter is now globally enabled').waitFor();
}

async function chat(...messages) {
  await page.goto('/');
  await page.waitForSelector('#chat-input');
  await page.getByLabel('Integrations').click();
  await page.locator('text=Tools').click();
  await page.locator('text=Browser').click();
  await page.keyboard.press('Escape');
  for (const [message, answer] of messages) {
    await page.locator('#chat-input').click();
    await page.keyboard.insertText(message);
    await page.keyboard.press('Enter');
    await page.locator('.chat-assistant').getByText(answer).last().waitFor();
    await page.getByLabel('Regenerate').last().waitFor(); // it is whole
  }
}

await signIn();
await connect();
await installFilter();
await switchOn();
const [first, second] = given.chats;
await chat(...first);
await chat(...second);
const line = page.getByText(/^browser ready: /);
await line.click(); // shows the lines before it, too
await page.getByText('Connecting to browser…').waitFor();
await page.mouse.move(0, 0);
await page.waitForTimeout(1000); // until what moves stands still
await page.screenshot({ path: given.pictures + '/openwebui-chat.png' });
console.log(JSON.stringify({ line: await line.first().innerText() }));
await browser.close();
